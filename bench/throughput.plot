# SPDX-License-Identifier: MIT
# Throughput of each way of moving the same bytes, with the range of the repeats.
set terminal svg size 900,560 font "sans,12" background rgb "white"
set output output_path
set title title_text.": throughput"
set ylabel "GiB/s"
set yrange [0:*]
set style fill solid 0.6
set boxwidth 0.6
set xtics rotate by -20
set rmargin 30
set grid ytics lc rgb "#dddddd"
set key off
plot data using 0:2:xtic(1) skip 1 with boxes lc rgb "#4477aa", \
     data using 0:2:3:4 skip 1 with yerrorbars lc rgb "#222222" lw 2
