"""Tests that Windows cannot run, by what it lacks; `conftest.py` skips them there.

Each reason was seen: the test was run under Wine and failed for it.
"""

from __future__ import annotations


# Files that cannot be loaded there, or try nothing else.
FILES = {
    "test_consent_matrix.py": "pseudo-terminals",
    "test_notice.py": "pseudo-terminals",
    "test_files.py": "permissions, owners and forks; see test_files_windows.py",
    "test_locks.py": "locks that are inherited; see test_files_windows.py",
}
# What stands in the source of a test that needs it.
WORDS = {
    "fork": ("os.fork", "child(", "within(", "holding(", "register_at_fork"),
    "FIFO, device or socket with a name": ("mkfifo", "mknod", "AF_UNIX", "make_socket"),
    "symbolic link without a privilege": ("symlink",),
    "permissions of POSIX": ("chmod", "S_IMODE", "st_mode", "umask", "geteuid"),
    "limit of a file's size": ("setrlimit",),
    "list of open descriptors": ("/dev/fd", "/proc/"),
    "alarm that interrupts a call": ("SIGALRM",),
}
# The others, or their beginnings.
TESTS: dict[str, tuple[str, ...]] = {
    "way to remove or replace what is open": (
        "test_event_in_a_file_",
        "test_new_segment_that_was_taken_away",
        "test_replaced_between_open_and_lock",
        "test_memory_replaces_the_ledger_once_there_is_room",
        "test_another_file_of_that_name_is_not_deleted",
        "test_opting_out_is_noticed_at_the_next_event",
        "test_a_ledger_that_vanished_is_refused_and_written_again_whole",
        "test_event_goes_where_the_name_leads",
        "test_consent_is_read_again_after_a_purge",
        "test_consent_is_read_at_every_opening",
        "test_segments_taken_away_again_and_again_end_in_an_error",
    ),
    "deletion that shows before the file is closed": (
        "test_segment_that_has_grown_is_not_deleted",
        "test_segment_with_a_second_name_loses_the_one_in_the_spool",
    ),
    "text of POSIX for an error": (
        "test_segment_that_cannot_be_read_is_an_error_with_its_place",
        "test_directory_that_cannot_be_written_is_an_error_and_nothing_stays_open",
    ),
    "position that an appending write looks at": (
        "test_moved_position_is_not_written_at",
        "test_strange_bytes_behind_ours",
    ),
    "list of open descriptors": ("test_own_lock_counts_as_well",),
    "alarm that interrupts a call": (
        "test_the_hosts_alarm_reaches_the_host",
        "test_interrupts_never_leave_it_stuck",
        "test_signal_handlers_that_record_never_leave_it_stuck",
    ),
    "FIFO or link that it lets everybody make": (
        "test_what_is_no_ledger_is_set_aside_unopened",
        "test_two_set_aside_are_kept",
    ),
    "paths of other systems": (
        "test_state_is_kept_where_other_programs_keep_it[linux",
        "test_state_is_kept_where_other_programs_keep_it[freebsd",
        "test_state_is_kept_where_other_programs_keep_it[darwin",
        "test_the_home_is_what_was_named_most_exactly",
        "test_a_tilde_is_the_users_home_in_every_path_that_a_person_sets",
        "test_an_app_stays_below_its_base",
        "test_every_file_is_directly_below_the_root",
    ),
    "working directory that can be removed": (
        "test_a_relative_home_needs_a_working_directory",
    ),
    "name that cannot be a file's for its surrogates": (
        r"test_a_home_that_is_no_path_is_refused['\\ud800",
    ),
    "two variables whose names differ by case alone": (
        "test_the_first_variable_that_is_set_decides[both cases",
        "test_no_proxy_in_lower_case_decides",
    ),
}
# What only Wine cannot do, or not in time.
WINE = {
    "a file that is listed as a directory is error 123 there, and 267 on Windows": (
        "test_a_letter_that_cannot_be_stored_settles_nothing_and_holds_back_no_other",
        "test_a_segment_whose_letters_cannot_be_stored_is_not_probed",
    ),
    "a ledger is opened ten times a second, and what damage does to it is SQLite's": (
        "test_a_flipped_bit_costs_an_entry_or_a_ledger_never_the_truth",
    ),
}


def reason_for(test: str, source: str) -> str | None:
    """Why a test cannot be run there; None where it can."""
    for reason, words in WORDS.items():
        if any(word in source for word in words):
            return f"Windows has no {reason}"
    for reason, beginnings in TESTS.items():
        if test.startswith(beginnings):
            return f"Windows has no {reason}"
    for reason, beginnings in WINE.items():
        if test.startswith(beginnings):
            return f"Wine: {reason}"
    return None
