"""What an operator watches: metrics of hub and organisations for Prometheus, and logs as JSON lines."""
