"""Delivery: how recorded events reach a server, and what becomes of those that do not.

    when     schedule     whether a flush is due, and the lock that one flush holds
             backoff      what the end of a flush means for the time of the next one
             launch       a flusher in a process of its own (`detached` runs in it)
             background   a flush on a thread of the host, or at its exit
    a flush  flush        lock, tidy, drain, conclude, report
             upkeep       tidy: what a crash left; space on a full disk
             drain        the loop, and what it does with a batch that fails
             search       where to cut a batch, and where a probe comes from; pure
             settlement   one segment: announce, settle, set aside, bury, delete
             unfinished   a session whose segment goes before its end came
             report       what it came to
    the rest dead_letters events that a server refused for good
             census       the conservation equation, counted by reading
             purge        removing what is kept, counted
             opt_out      removing what is kept, without a trace

Losing nothing rests on an order (announce, post, settle, delete: `settlement`) and on
one lock: all that changes the ledger, `dead/` or `quarantine/` holds the flush lock.
"""
