#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants bugs in the store, one at a time, and says which tests notice.

    tools/mutants.py [-k WORD] [--by TEST]       or: make mutants

Works on a copy under build-mutants/, never on the tree itself. A bug that nobody notices is an error, and so is one
whose place in the source is not found any more. Takes about four minutes; not part of `make test`.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "build-mutants"
SEEDS = {"vlog_sim_test": 400, "store_sim_test": 40}

# What is wrong, file (of src/store, or a path below src), what is there, what it becomes, the tests that may notice.
MUTANTS = [
    ("a removed value stays when it is being read", "master_action.c",
     "status == STATUS_BUSY && !entry->removing && !replica->stale", "status == STATUS_BUSY",
     ["master_walk_test", "store_sim_test"]),
    ("what replaces a pinned value loses the pin with the master", "client_put.c",
     "item->attributes.hard_pin = true;", "(void)0;", ["contract_test"]),
    ("a key that is put twice never ends", "client_call.c",
     "if (call->doubles > 0 && call->left == call->doubles", "if (call->doubles > 0 && call->left == 0", ["contract_test"]),
    ("load is ignored where a node is drawn", "master_place.c",
     "        if (master_member_keeps(&master->rng, a)) break;", "        break;", ["master_place_test"]),
    ("load is ignored where a value is copied", "master_copy.c",
     "master_member_room(a) / MASTER_KEEP_ALL * a->keep >", "master_member_room(a) >= a->keep && master_member_room(a) / MASTER_KEEP_ALL * b->keep >",
     ["master_place_test"]),
    ("a node in quarantine is drawn", "master_place.c",
     "        if (master_member_barred(member, now_ns)) {", "        if (master_member_barred(member, 0)) {", ["master_place_test"]),
    ("a put is refused for a quarantine", "master_put.c",
     "if (status == STATUS_FULL) member = master_place_barred(", "if (status == STATUS_OK) member = master_place_barred(",
     ["master_place_test"]),
    ("a quarantine is never longer than the first one", "master_place.c",
     "const uint32_t longer = 2 * member->bar_ms;", "const uint32_t longer = 0 * member->bar_ms;", ["master_place_test"]),
    ("a move lets its source drop the value before its target has it", "master_task.c",
     "return replica != NULL && master_replica_sure(master, replica) &&",
     "return replica == NULL ? entry->replicas != 0 : master_replica_sure(master, replica) &&",
     ["master_task_test", "store_sim_test"]),
    ("what was copied by name is one too many", "master_task.c",
     "master_copies_wish(master, entry, wished + 1);", "master_copies_wish(master, entry, wished);", ["master_task_test"]),
    ("a move is over while its source still has the value", "master_task.c",
     "if (replica->dropping) return false;", "if (replica->dropping) return true;", ["master_task_test", "store_sim_test"]),
    ("a task goes on with the value that took the place of its own", "master_task.c",
     "status = STATUS_STALE;", "status = STATUS_OK;", ["master_task_test"]),
    ("the old replicas of a replaced value are read on", "master_event.c",
     "if (!newer) return;", "if (true) return;", ["master_replace_test", "master_walk_test", "store_sim_test"]),
    ("a put is acknowledged while the old value is there", "master_event.c",
     "if (!r->stale || owner == member) continue;", "if (owner != NULL || member != NULL) continue;", ["master_replace_test", "master_walk_test", "store_sim_test"]),
    ("what is remembered is read whatever its owner says", "client_get.c",
     "known_same(item, answer) ? WORD_SAME", "known_same(item, answer) || item->length > 0 ? WORD_SAME",
     ["client_known_test", "store_sim_test"]),
    ("a put is acknowledged by a life that only found its value", "node_put.c",
     "commit->epoch == node->epoch && node_ends_moved_down(", "node_ends_moved_down(", ["store_node_test", "store_sim_test"]),
    ("an answer about another number of commits than were asked about is believed", "node_ends.c",
     "if (status == STATUS_OK && codes.count != asked->count) status = STATUS_PROTOCOL;", "", ["node_ends_test"]),
    ("what became of one value of a message is told of another", "node_put.c", "commit_one(node, wait, i, &commit);",
     "commit_one(node, wait, commits.count - 1 - i, &commit);", ["node_ends_test", "client_older_test", "store_sim_test"]),
    ("of a message only the first value's checksums are compared", "node_put.c", "commit_one(node, wait, i, &commit);",
     "{ if (i > 0) commit.sums.count = 0; commit_one(node, wait, i, &commit); }", ["node_ends_test", "client_older_test"]),
    ("all values of a message have the first one's checksums", "proto_commits.c", "commits->sums.data + iter->sum * sizeof(uint64_t)",
     "commits->sums.data + 0 * iter->sum", ["store_proto_test", "client_older_test", "store_sim_test"]),
    ("what another writer has written over is announced to the next master", "node.c", "    node_put_fence(node);\n", "",
     ["store_node_test", "store_sim_test"]),
    ("a put of many is acknowledged before an old value is gone", "node_ends.c", "end_settle(end, STATUS_AGAIN, NULL)",
     "end_settle(end, STATUS_OK, NULL)", ["node_ends_test", "store_sim_test"]),
    ("the first value of a message answers for the others", "client_commit.c", "store_status_of(msg_u32_at(codes, i++))",
     "store_status_of(msg_u32_at(codes, 0 * i++))", ["client_older_test"]),
    ("an owner's answer about another number of values is believed", "client_commit.c",
     "if (status == STATUS_OK && codes.count != count) status = STATUS_PROTOCOL;",
     "if (status == STATUS_OK && codes.count < count) codes = (struct msg_column){ (const uint8_t[4096]){ 0 }, count };", ["client_older_test"]),
    ("a commit that the master refuses stays", "node_ends.c", "        end_refused(end, status);\n    } else if (heard)",
     "        end_finish(end, status, NULL);\n    } else if (heard)", ["node_ends_test", "store_sim_test"]),
    ("what is dropped is not posted", "node.c",
     "    board_changed(node->board, &object->id);\n    if (node_values_removed(", "    if (node == NULL || node_values_removed(",
     ["client_known_test", "store_sim_test"]),
    ("an owner that cannot drop what it was told to goes on posting that it vouches", "node_put.c",
     "        node_trust_changed(node);\n", "", ["client_known_test", "store_sim_test"]),
    ("the board of a dead owner is believed", "board.c", "|| !seat_lives(boards, seat)", "|| (false && !seat_lives(boards, seat))",
     ["board_test", "client_known_test"]),
    ("a board is believed for longer than it says", "board.c", "return now_ns < until_ns &&", "return until_ns > 0 &&",
     ["board_test"]),
    ("a value's counter is looked at after its owner was asked", "client_get.c",
     "known_put(store->known, &value, item->sums);",
     "{ struct known_value late = value; (void)!boards_look(store->boards, place->node.epoch, &late.id, &late.stamp); known_put(store->known, &late, item->sums); }",
     ["store_sim_test", "client_known_test"]),
    ("a guess is used though its owner does not vouch", "client_guess.c",
     "if (answer->status != STATUS_OK || !answer->vouched) return false;",
     "if (answer->status != STATUS_OK) return false;", ["client_known_test"]),
    ("a guess is used wherever the master says that the value is", "client_get.c",
     "return guess->good && guess->address == item->places[0].address && guess->size == item->length;",
     "return guess->good;", ["client_known_test"]),
    ("an owner vouches though its master does not hear it", "node_trust.c",
     "return now_ns < trust->heard_ns + NODE_VOUCH_MS * ENV_NS_PER_MS;", "return true;",
     ["node_trust_test", "client_known_test"]),
    ("a removal is acknowledged before its owner knows", "master_removals.c",
     "if (ids.count == 0 && !missed) {", "if (true) {", ["client_known_test"]),
    ("what is read without the master is no heat", "client_get.c",
     "item->reads = known_reads_take(store->known, &item->ask.id);", "", ["client_known_test"]),
    ("what is in doubt is served at once", "master_replica.c", "(!replica->doubt || master->settled)", "true",
     ["master_replace_test"]),
    ("what was removed comes back with its node", "master_event.c",
     "const bool dead = object && is_dead(master, event);",
     "const bool dead = false && is_dead(master, event);",
     ["master_replace_test"]),
    ("the term of a value does not count", "rank.h", "if (a.term != b.term && a.term != 0 && b.term != 0)",
     "if (false)", ["master_replace_test", "store_sim_test"]),
    ("what was evicted lets older terms back in", "master_entry.c",
     "tombs_raise(&master->evicted, &entry->id, rank);", "(void)rank;", ["master_replace_test"]),
    ("a master that was there for a moment is believed to know", "node_trust.c",
     "term < trust->below", "(false && term > 0)", ["node_trust_test"]),
    ("a copy is of the present term", "node_put.c",
     "if (attributes.term == 0 || attributes.term > commit->term) attributes.term = commit->term;",
     "attributes.term = commit->term;", ["store_node_test", "store_sim_test"]),
    ("a term is not written to the footer", "vlog_write.c", "le_put64(at, entry->meta.attributes.term);",
     "le_put64(at, 0);", ["vlog_sim_test"]),
    ("a copy that was not begun waits for its writer", "master_copy.c", "if (status == STATUS_NOT_FOUND) {", "if (false) {",
     ["master_copy_test"]),
    ("a range is promised again while its writer may write", "master_ticket.c",
     "(expires > least ? expires : least) + master_ms(master->options.fence_ms);", "(expires > least ? now_ns : now_ns);",
     ["master_walk_test"]),
    ("the range of a writer with more time is kept as those of others", "master_ticket.c",
     "(expires > least ? expires : least)", "(expires > least ? least : least)", ["master_session_test"]),
    ("what an owner does not announce any more is believed", "master_event.c",
     "if (replica->round != member->round) master_replica_remove(master, replica);", "(void)replica;",
     ["master_walk_test"]),
    ("leases keep nothing", "master_evict.c",
     "if (entry == need->except || entry->lease_until > need->now_ns) return;", "if (entry == need->except) return;",
     ["master_evict_test", "master_walk_test"]),
    ("a tenant is charged for what is free", "master_replica.c",
     "master_tenant_credit(master, tenant_of(master, replica), size);", "", ["master_tenant_test", "master_walk_test"]),
    ("a tenant may have one value more than its quota", "master_tenant.c",
     "if (master_tenant_fits(known, bytes)) return STATUS_OK;",
     "if (master_tenant_fits(known, 0)) return STATUS_OK;", ["master_tenant_test", "master_walk_test"]),
    ("a tenant over its quota takes from others", "master_evict.c",
     "if (evict_from(master, tenant, false, need, NULL, &looks)) return true;",
     "if (evict_in_turn(master, NULL, false, need)) return true;", ["master_tenant_test"]),
    ("who has just come back is stampeded", "master_member.c",
     "if (member->slow_ns == 0 || ms >= SLOW_MS) return room;", "if (member != NULL) return room;",
     ["master_place_test"]),
    ("who fails is placed at as ever", "master_member.c",
     "if (member->failed_puts >= FAILED_PUTS) member->slow_ns = now_ns;",
     "if (member->failed_puts > 1000000) member->slow_ns = now_ns;", ["master_place_test"]),
    ("heat adds replicas without a limit", "master_hot.c",
     "return room < master->options.hot_replicas ? room : master->options.hot_replicas;", "return master == NULL ? 0 : room;",
     ["master_hot_test"]),
    ("heat takes memory that is not idle", "master_copy.c",
     "if (room == COPY_IDLE && !has_idle(member, entry->size)) continue;",
     "if (room == COPY_IDLE && !has_idle(member, 0) && best == member) continue;", ["master_hot_test"]),
    ("heat has a replica beside another on one host", "master_copy.c",
     "if (room == COPY_IDLE && any) break; /* nothing is won by the same host */",
     "if (room == COPY_IDLE && any) continue;", ["master_hot_test"]),
    ("room for others is not made of what heat has added", "master_evict.c",
     "if (evict_hot(master, tenant, need)) return true;", "", ["master_hot_test"]),
    ("a new master has heard of all that heat had added", "master_event.c",
     "return entry->extra != NULL && entry->extra->attributes.hot;", "return entry == NULL;",
     ["master_hot_test"]),
    ("a quota that was set gives way to an option", "master_tenant.c",
     "if (stamp < tenant->quota_stamp) return STATUS_OK;", "", ["master_tenant_test"]),
    ("what is being dropped is read", "master_replica.c", "return !replica->dropping && !replica->stale &&",
     "return !replica->stale &&", ["master_walk_test", "store_sim_test"]),
    ("absent is said before everybody has announced", "master_member.c", "if (!member->announced &&",
     "if (false && !member->announced &&", ["master_test"]),
    ("space lent to another term is handed out", "master_event.c",
     "if (event->generation != master->term) return;", "", ["master_test"]),
    ("a late end of a put brings back what was dropped", "master_event.c",
     "if (!member->synced || event->generation > member->generation_seen) return false;", "if (true) return false;",
     ["master_test", "master_walk_test", "store_sim_test"]),
    ("a commit of an older term counts", "node_put.c",
     "if (commit->epoch != node->epoch || commit->term != node->term) return STATUS_STALE;", "",
     ["store_node_test", "store_sim_test"]),
    ("checksums of a commit are not compared", "node_put.c",
     "if (hash_xxh3(data + offset, piece_len(commit, offset)) != sums[i]) return STATUS_CORRUPT;",
     "(void)(data + offset);", ["store_node_test"]),
    ("a value is dropped under its reader", "objects.c",
     "if (present->pins > 0) return STATUS_BUSY; /* I3 */", "", ["objects_test", "store_sim_test"]),
    ("ranges of values overlap", "objects.c",
     "if (range_used(objects, wanted->address, wanted->size)) return STATUS_BUSY;",
     "(void)range_used(objects, wanted->address, wanted->size);", ["objects_test"]),
    ("a removed value stays on disk", "node_put.c", "if (!drop->evict) node_values_drop(node, &drop->id);", "",
     ["store_sim_test"]),
    ("a value that leaves memory for the disk is not said to be there", "node_values.c",
     "    node_log(node, STORE_EVENT_STORED, STORE_CLASS_OBJECT, &object->id, entry->generation);\n    return true;",
     "    return true;", ["store_sim_test"]),
    ("a drop is not written to the log", "vlog_write.c", "    gone_note(vlog, id);\n    return true;",
     "    return true;", ["vlog_sim_test"]),
    ("a footer forgets what is gone", "vlog_write.c", ".gone = segment->gone_count };", ".gone = 0 };",
     ["vlog_sim_test"]),
    ("a footer is written before its records are synced", "vlog_write.c",
     ".op = ENV_IO_SYNC, .file = segment->file, .fn = on_records_synced",
     ".op = ENV_IO_RESERVE, .file = segment->file, .fn = on_records_synced", ["vlog_sim_test"]),
    ("unpacked bytes are not compared", "ssd.c",
     "        if (hash_xxh3(layer, size) != read->sums[i]) return false;",
     "        if (read->segment->places == NULL && hash_xxh3(layer, size) != read->sums[i]) return false;",
     ["ssd_sim_test"]),
    ("unpacked bytes of a value are not compared", "vlog.c",
     "if (status == STATUS_OK && !vlog_bytes_right(&head, read->data)) status = STATUS_CORRUPT;",
     "if (status == STATUS_OK && !vlog_meta_packed(&head.meta) && !vlog_bytes_right(&head, read->data)) status = STATUS_CORRUPT;",
     ["vlog_sim_test"]),
    ("bytes from the disk are not compared", "vlog.c",
     "if (status == STATUS_OK && !vlog_bytes_right(&head, read->data)) status = STATUS_CORRUPT;", "",
     ["vlog_sim_test"]),
    ("parts of a commit need not be the whole value", "proto_put.c", "return size == commit->size;", "return true;",
     ["store_proto_test"]),
    ("parts of a session may overlap", "draft.c", "draft->fragments[at].offset < end) return STATUS_INVALID;",
     "draft->fragments[at].offset < end) return STATUS_OK;", ["session_test"]),
    ("parts are committed as they are", "node_put.c", "if (sum != msg_u64_at(commit->sums, i)) return STATUS_CORRUPT;",
     "", ["store_node_test", "session_test"]),
    ("a session reads on what has become another value", "hold.c",
     "if (hold->sums[i] != msg_u64_at(answer->sums, i)) return STATUS_STALE;", "", ["session_test", "store_sim_test"]),
    ("parts are read unverified", "hold.c", "} else if (!span_right(item->hold, read)) {", "} else if (!span_right(item->hold, read) && false) {",
     ["session_test"]),
    ("a lapsed pin is taken for one that holds", "client_pin.c", "return env_now_ns(pin->env) >= pin->until_ns;",
     "return pin->until_ns == 1;", ["session_test"]),
    ("who reads a replica that fails is told so at once", "hold.c", "while (hold->tries < hold->places_count) {",
     "while (hold->sums == NULL && hold->tries < hold->places_count) {", ["session_test"]),
    ("a removal waits for a copy that nobody asked for", "master_put.c",
     "if (ticket != NULL && !ticket->copy) return STATUS_EXISTS;", "if (ticket != NULL) return STATUS_EXISTS;",
     ["master_copy_test"]),
    ("a copy of its own refuses a tenant's put", "master_tenant.c",
     "if (possible && tenant->copies > 0) return STATUS_AGAIN;", "", ["master_tenant_test"]),
    ("what comes after a removal counts as removed", "master_event.c",
     "if (!known || (!old && rank > 0)) entry->removing = false;", "if (!known) entry->removing = false;",
     ["master_replace_test"]),
    ("a master that was missed leaves no doubt", "node_trust.c",
     "return trust->heard_ns != 0 && term != trust->term &&", "return false && trust->heard_ns != 0 && term != trust->term &&",
     ["node_trust_test"]),
    ("memory of this host is believed", "reading.c",
     "if (sum != reading->sums[at / reading->piece_size]) return STATUS_CORRUPT;", "(void)sum;",
     ["reading_test", "store_real_test"]),
    ("the checksum of a frame is not compared", "net/rpc_frame.c",
     "if (version > 1 && head->sum != hash_xxh3(payload, head->len)) return STATUS_CORRUPT;", "(void)version;",
     ["rpc_sim_test", "store_sim_test"]),
    ("the checksum of a frame's length is not compared", "net/rpc_frame.c",
     "if (version > 1 && le_get32(data + HEAD_SUMMED) != (uint32_t)hash_xxh3(data, HEAD_SUMMED))",
     "if (version == 0)", ["rpc_frame_test"]),
    ("what a damaged length promises is waited for", "net/rpc_conn.c",
     "return is_too_long(conn) ? fail_damaged(conn) : STATUS_OK;",
     "return false && is_too_long(conn) ? fail_damaged(conn) : STATUS_OK;", ["rpc_older_test"]),
    ("a greeting without its checksum is believed", "net/rpc_conn.c",
     "if (lacks_check(conn, frame)) return fail_damaged(conn);", "(void)lacks_check(conn, frame);", ["rpc_older_test"]),
    ("the checksum of a greeting is not compared", "net/rpc_frame.c",
     "return sum == hash_xxh3(reader->data, field_at) ? STATUS_OK : STATUS_CORRUPT;",
     "return sum == 0 && field_at == 0 ? STATUS_CORRUPT : STATUS_OK;", ["rpc_frame_test", "rpc_older_test"]),
    ("control frames of the transfer engine are not compared", "transfer/lane.c",
     "if (control_damaged(lane)) return STATUS_CORRUPT;", "(void)control_damaged(lane);",
     ["transfer_hostile_test"]),
    ("memory of another start of an owner is read", "reading.c",
     "if (status == STATUS_OK && reading->loan.generation != reading->owner) {",
     "if (status == STATUS_OK && reading->owner == 0) {", ["reading_test"]),
]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", **options)


def copy_tree():
    """What git tracks, or would; only what has changed is written, so that little is built again."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).stdout.split()
    for name in listed:
        source, target = ROOT / name, COPY / name
        if not source.is_file() or (target.exists() and target.read_bytes() == source.read_bytes()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for target in (COPY / "src").rglob("*.[ch]"): # what has moved since
        if str(target.relative_to(COPY)) not in listed:
            target.unlink()


def build(tests):
    return run("ninja", "-C", COPY / "build", *(f"tests/{test}" for test in tests))


def noticed(test):
    try:
        environment = dict(os.environ, YOLK_SIM_SEEDS=str(SEEDS.get(test, 40)))
        return run(COPY / "build/tests" / test, timeout=300, cwd=COPY / "build", env=environment).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def try_mutant(file, old, new, tests):
    """The test that notices, or why none does."""
    path = COPY / "src" / (file if "/" in file else f"store/{file}")
    text = path.read_text()
    if text.count(old) != 1:
        return None, f"{text.count(old)} places in {file}"
    path.write_text(text.replace(old, new))
    try:
        built = build(tests)
        if built.returncode != 0:
            return None, "does not compile:\n" + built.stdout[-1500:]
        for test in tests:
            if noticed(test):
                return test, None
        return None, "nobody noticed"
    finally:
        path.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", metavar="WORD", default="", help="only bugs whose description has it")
    parser.add_argument("--by", metavar="TEST", help="ask this test alone, whatever the bug: what would it notice?")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.k in mutant[0]]
    if options.by:
        mutants = [(*mutant[:4], [options.by]) for mutant in mutants]
    COPY.mkdir(exist_ok=True)
    copy_tree()
    tests = sorted({test for mutant in mutants for test in mutant[4]})
    configured = run("cmake", "-S", COPY, "-B", COPY / "build", "-G", "Ninja")
    if configured.returncode != 0 or build(tests).returncode != 0:
        sys.exit("mutants: the copy does not build")
    for test in tests:
        if noticed(test):
            sys.exit(f"mutants: {test} fails without any")
    missed = 0
    for what, file, old, new, candidates in mutants:
        test, why = try_mutant(file, old, new, candidates)
        missed += test is None
        print(f"{'caught by ' + test if test else 'MISSED: ' + why:<28} {what}", flush=True)
    print(f"mutants: {len(mutants) - missed} of {len(mutants)} caught")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
