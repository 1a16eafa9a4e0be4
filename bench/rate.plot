# SPDX-License-Identifier: MIT
# Latency against the rate of the background push.
set terminal svg size 760,480 font "sans,12" background rgb "white"
set output output_path
set title title_text.": latency against push rate"
set logscale y
set xlabel "push, bytes/s"
set ylabel "us from touch to resume"
set grid ytics lc rgb "#dddddd"
set key top left
plot data using 0:4:xtic(1) skip 1 with linespoints lw 2 title "p50", \
     data using 0:5 skip 1 with linespoints lw 2 title "p99", \
     data using 0:6 skip 1 with linespoints lw 2 title "p99.9"
