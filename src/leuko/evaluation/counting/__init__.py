"""The differential count: a tally of answers, corrected for the model's errors, with limits."""
