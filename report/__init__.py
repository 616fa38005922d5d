"""Reports on a finished program: figures, a picture of the schedule, a trace."""
