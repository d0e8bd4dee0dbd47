"""The wire: one request, and what came of it. The map of this wing.

    README.md    what servers have to do, for whoever writes one
    batch        what is posted at once, and what an answer to it names
    formats/     what a body looks like, and what an accepting answer says: a file each
    library      urllib3, also where an optional module of its own is broken
    endpoint     which URL and proxy may be used
    headers      which header a key may go under
    request      the headers and the coding of a body
    transport    one POST, and how many at once; the only user of urllib3's connections
    connection   how it is dialled, and the time and bytes it may take
    deadline     a request that can be abandoned
    unnoticed    what a request does not do to the program it is made in
    reply        what a client answered, read no further than the bound
    failure      what an exception of the network means
    verdict      what an answer, or none, means for the batch; Retry-After
    retry        one request and its retries; the only user of tenacity

A batch goes down: batch, retry, transport, connection. Its outcome comes back up: reply or
failure, then verdict. Nothing here knows of spools, ledgers or schedules.
"""
