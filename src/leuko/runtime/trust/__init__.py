"""How far an answer is to be trusted: decided, fitted, calibrated."""
