"""What a daemon tells Prometheus: the text, the plain HTTP it is fetched by, and what every daemon has to tell."""
