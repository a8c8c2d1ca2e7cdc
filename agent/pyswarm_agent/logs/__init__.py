"""What containers print: CRI log files, rotated, read and followed."""
