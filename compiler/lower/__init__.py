"""From an integer model to the clusters of a token's program: functions that write operations with a `Builder`."""
