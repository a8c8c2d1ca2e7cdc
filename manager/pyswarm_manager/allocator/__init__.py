"""Addresses: subnets, VNIs, VIPs, blocks, task addresses, node numbers. Pure."""
