"""One module for each object's group; `service` is a package with one file for each verb."""
