"""Reading, checking, splitting, balancing and drawing data sets."""
