"""A plan: everything that a build would do, with its reason, duration and cost. Nothing here changes anything."""
