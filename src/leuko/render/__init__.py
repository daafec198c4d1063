"""Plots, reports and annotated pictures, made from Leuko's JSON documents and predictions."""
