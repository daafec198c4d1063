"""What a table of predictions is worth: metrics, intervals over slides, reports, comparisons."""
