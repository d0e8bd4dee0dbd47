"""The format on disk, described once.

A segment is a JSON text sequence (RFC 7464, `application/json-seq`). Grammar:

    segment  = *record
    record   = RS text LF                         RS = %x1E, LF = %x0A
    text     = '{"crc":"' 8hex '","seq":"' 8hex '","rec":' event '}'
    8hex     = 8*8(DIGIT / %x61-66)               lower case
    event    = a JSON object, without raw control characters

`crc` is the CRC-32 of ISO 3309 (what `zlib.crc32` computes) of the bytes from
the quote before `seq` through the last `}` before the LF, both included. `seq`
counts the segment's records from zero. `rec` is the event as it will be posted.
A worked example, exact to the byte:

    \\x1e{"crc":"e8ab4401","seq":"0000002a","rec":{"event":"tool"}}\\n

A record is whole when the fixed template holds byte for byte, the checksum is
equal, and it ends in `}` LF. It ends at the first LF or before the next RS,
whichever comes first. JSON holds neither byte raw, so a reader finds the next
record after any damage; what it passes on the way is a damaged stretch.

What is good about it: `jq --seq .rec` reads a live spool; the prefix has a
fixed width, so the event is a slice that is copied into the request and never
decoded; damage costs the damaged record alone; missing numbers say how many
records a stretch held. What is not: 44 bytes a record besides the event, and a
CRC-32 finds accidents, not forgers. A segment that was cut exactly at a
record's end looks like one that was never written further.

`frame.py` makes a record and reads it. The rules for writers and readers stand in
`segment.py` (one file), `writer.py` and `reader.py`: writers create and append, readers
delete, and nothing is rewritten. `power.py` syncs, `refusals.py` counts what was refused,
`summary.py` spares a launch the look at very many segments.
"""
