# SPDX-License-Identifier: MIT
# Latency of every sample of a run: share of the faults (from 1 down to 1e-4 above) against us.
set terminal svg size 900,560 font "sans,12" background rgb "white"
set output output_path
set title title_text.": faults that took longer"
set logscale xy
set xlabel "us from touch to resume"
set ylabel "share of the faults"
set yrange [1e-4:1]
set format y "10^{%L}"
set grid xtics ytics lc rgb "#dddddd"
set key outside bottom center maxcols 2 noenhanced
plot for [i=0:*] data index i using 1:(1.0 - $2 + 1e-5) \
    with lines lw 2 dt 1+i/8 title columnheader(1)
