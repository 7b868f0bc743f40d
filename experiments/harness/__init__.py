"""What experiments share: records, worker processes, runs of all of them. It knows no paper."""
