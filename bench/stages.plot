# SPDX-License-Identifier: MIT
# Median of the stages of a remote fault that are known, one bar a configuration.
set terminal svg size 900,560 font "sans,12" background rgb "white"
set output output_path
set title title_text.": stages, median"
set ylabel "us"
set yrange [0:*]
set style data histograms
set style histogram rowstacked
set style fill solid 0.7
set boxwidth 0.6
set xtics rotate by -20
set grid ytics lc rgb "#dddddd"
set key top left
plot data using 2:xtic(1) skip 1 title "fault read to placed (engine)", \
     data using 3 skip 1 title "delivery and resume (kernel, scheduler)"
