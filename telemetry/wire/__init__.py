"""The network: where events may be sent, one request, and what its answer means."""
