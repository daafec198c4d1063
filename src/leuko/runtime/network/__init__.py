"""A network's wire format, its sessions, and one answer out of several views."""
