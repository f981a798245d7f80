"""Files and data sets of rows -> data frames of plain values."""
