"""A whole platform on one machine: servers, hub, organisations and their workers as processes that are watched."""
