"""What can be read from a finished program: figures, a picture of the schedule, a trace."""
