"""How requests and replies travel: routes, connections, metrics, and the end of the process."""
