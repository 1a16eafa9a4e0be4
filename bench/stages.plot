# SPDX-License-Identifier: MIT
# Median of each stage of a remote fault, one bar a configuration. Medians do not add up to the
# median of the whole.
set terminal svg size 1000,560 font "sans,12" background rgb "white"
set output output_path
set title title_text.": stages of a fault, medians"
set ylabel "us"
set yrange [0:*]
set style data histograms
set style histogram rowstacked
set style fill solid 0.7
set boxwidth 0.6
set xtics rotate by -20 noenhanced
set grid ytics lc rgb "#dddddd"
set key outside right top reverse Left invert noenhanced
plot for [i=2:8] data using i:xtic(1) title columnheader(i)
