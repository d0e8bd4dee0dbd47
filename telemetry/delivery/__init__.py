"""Delivery: how recorded events reach a server, and what becomes of those that do not.

    when     schedule     whether a flush is due, and the lock that one flush holds
             backoff      what the end of a flush means for the time of the next one
             dispatch     who flushes, and when: launch, thread, exit, manual
             launch       a flusher in a process of its own (`detached` runs in it);
                          `launch_windows` on Windows
             in_process   a flush on a thread of the host, or at its exit
    a flush  flush        lock, tidy, drain, conclude, report
             upkeep       tidy: what a crash left; space on a full disk
             drain        the loop, and what it does with a batch that fails
             evidence     what the answers say: of the server, of each range; pure
             search       which range is tried next, where a batch is cut, and where a
                          probe comes from; pure
             gathering    which small segments go into one batch; pure
             settlement   one segment: announce, settle, set aside, bury, delete
             compaction   what is left of many segments is one, in a full spool
             unfinished   a session whose segment goes before its end came
             report       what it came to
    the rest dead_letters events that a server refused for good
             census       the conservation equation, counted by reading
             purge        removing what is kept, counted
             opt_out      removing what is kept, without a trace
             forgetting   the request that a server delete what it has

Losing nothing rests on an order (announce, post, settle, delete: `settlement`) and on
one lock: all that changes the ledger, `dead/` or `quarantine/` holds the flush lock.
"""
