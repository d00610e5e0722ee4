"""Requests to engines elsewhere: connections, health, answers. The decisions are in `routing/upstreams/`."""
