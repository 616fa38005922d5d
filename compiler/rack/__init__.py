"""Models on racks: what each chip holds and computes, and one schedule for all chips."""
