"""Uploaded scenes: forms, archives, conversion to stored scenes, target cameras."""
