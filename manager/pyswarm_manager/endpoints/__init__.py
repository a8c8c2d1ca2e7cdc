"""What every host's balancer and DNS work from, derived from services, tasks and nodes. Pure."""
