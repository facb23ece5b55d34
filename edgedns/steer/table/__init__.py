"""The WAN table: samples in columns, histograms, rows and their levels, estimates."""
