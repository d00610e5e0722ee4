"""The device: its hardware, its measured speed, and the profile for running models on it. See README.md."""
