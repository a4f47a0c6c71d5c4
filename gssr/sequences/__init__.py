"""What a (value, text, goal) sequence is: records, windows, scalers, goal writers, collation. Knows no other room."""
