"""Many micrographs, series and 4D-STEM scans: planned, done in parts by whoever there is, and merged."""
