"""What the service is compared with: the same server and worker, and none of the patterns."""
