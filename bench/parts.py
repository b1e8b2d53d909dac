"""Says what part of the samples of `perf script -F ip,sym` belongs to what: see docs/development.md.

A sample counts for the first of PARTS that a frame of its stack belongs to, the innermost frame or not.
"""

import sys
from collections import Counter

PARTS = [
    ("pglz, compressing", ["pglz_compress"]),
    ("pglz, decompressing", ["pglz_decompress"]),
    ("lz4, compressing", ["LZ4_", "lz4_compress", "toast_compress"]),
    ("reading JSON text", ["jsonb_in", "json_text::"]),
    ("waking the WAL writer", ["__x64_sys_kill", "kill_pid_info"]),
    ("messages of the client", ["secure_read", "secure_write", "pq_"]),
    ("making the document", ["jsonb_build_object", "jsonb_concat", "md5_text"]),
    ("extending the file", ["mdextend", "smgrextend"]),
    ("pruning the page", ["heap_page_prune"]),
    ("finding the row by its index", ["Table::next", "ExecCheckIndexConstraints"]),
    ("writing the row, its WAL and its index entries", [
        "heap_update", "heap_insert", "Table::replace", "Table::fill", "Table::insert", "ExecInsertIndexTuples",
    ]),
    ("opening and closing the tables", ["Tables::open", "Writer::tables", "Table::open", "Table::close"]),
    ("transaction id and its lock", ["GetTopFullTransactionId", "GetNewTransactionId"]),
    ("looking at what is there", ["plan::plan", "Current::read", "plan::"]),
    ("publishing to L1", ["publish", "commit::mark", "L1"]),
    ("telling subscribers", ["notify::"]),
    ("rest of the flush", ["transaction::flush", "alone::", "Writer::"]),
    ("staging", ["state_set", "transaction::stage"]),
    ("rest of our work at COMMIT", ["callbacks::"]),
    ("executor, plan cache, portal", ["Executor", "Portal", "SPI_", "ExecInit", "GetCachedPlan", "exec_bind"]),
    ("rest of the server's commit", ["CommitTransaction", "LockRelease"]),
]


def part(stack):
    """The name of the part that a stack belongs to."""
    return next((name for name, frames in PARTS if any(frame in stack for frame in frames)), "other")


def main():
    counts = Counter(part(stack) for stack in sys.stdin.read().split("\n\n") if stack.strip())
    for name, count in counts.most_common():
        print(f"{100 * count / counts.total():5.1f} %  {name}")
    print(f"{counts.total()} samples")


main()
