/* SPDX-License-Identifier: Apache-2.0
 *
 * store/board.c - see the header. */
#include "store/board.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "store/node_trust.h"

/* As it lies in the shared memory. */
struct posted {
    _Atomic uint64_t epoch; /* last: from then on the rest means something */
    _Atomic uint64_t until_ns;
    uint8_t rest[48]; /* the counters have cache lines of their own */
    _Atomic uint32_t counters[BOARD_SLOTS];
};

_Static_assert(sizeof(struct posted) == BOARD_SIZE, "64 bytes and the counters");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "atomics mean the same to processes that share them");

static uint32_t slot_of(const struct block_key *id)
{
    return (uint32_t)(block_key_hash(id) % BOARD_SLOTS);
}

/* ---- the owner's side ---- */

struct board {
    struct env_map map;
    char name[ENV_SHARE_NAME_SIZE];
};

static struct posted *board_posted(struct board *board)
{
    return board->map.data;
}

enum status board_create(struct env *env, uint64_t epoch, struct board **out)
{
    struct board *board = calloc(1, sizeof(*board));
    ASSERT(epoch != 0);

    if (board == NULL) return STATUS_NO_MEMORY;
    const enum status status = env_map_create(env, BOARD_SIZE, &board->map, board->name, NULL);
    if (status != STATUS_OK) {
        free(board);
        return status;
    }
    atomic_store_explicit(&board_posted(board)->epoch, epoch, memory_order_release);
    *out = board;
    return STATUS_OK;
}

void board_destroy(struct board *board)
{
    if (board == NULL) return;
    board_post(board, 0);
    env_map_close(&board->map);
    free(board);
}

const char *board_name(const struct board *board)
{
    return board == NULL ? "" : board->name;
}

void board_post(struct board *board, uint64_t until_ns)
{
    if (board == NULL) return;
    atomic_store_explicit(&board_posted(board)->until_ns, until_ns, memory_order_release);
}

void board_changed(struct board *board, const struct block_key *id)
{
    if (board == NULL) return;
    atomic_fetch_add_explicit(&board_posted(board)->counters[slot_of(id)], 1, memory_order_release);
}

/* ---- the readers' side ---- */

struct seat {
    uint64_t epoch;     /* 0: free */
    struct env_map map; /* all zero: it could not be seen */
    uint64_t retry_ns;  /* then: when to look for it again */
    uint64_t turn;      /* of which it was found alive */
};

struct boards {
    struct env *env;
    uint64_t turn;
    struct seat seats[BOARDS_MAX];
    uint32_t next; /* to be given to another */
};

enum status boards_create(struct env *env, struct boards **out)
{
    struct boards *boards = calloc(1, sizeof(*boards));
    if (boards == NULL) return STATUS_NO_MEMORY;
    boards->env = env;
    *out = boards;
    return STATUS_OK;
}

static void seat_free(struct seat *seat)
{
    env_map_close(&seat->map);
    *seat = (struct seat){ 0 };
}

void boards_destroy(struct boards *boards)
{
    if (boards == NULL) return;
    for (uint32_t i = 0; i < BOARDS_MAX; i++)
        seat_free(&boards->seats[i]);
    free(boards);
}

static struct seat *seat_find(struct boards *boards, uint64_t epoch)
{
    for (uint32_t i = 0; i < BOARDS_MAX && epoch != 0; i++) {
        if (boards->seats[i].epoch == epoch) return &boards->seats[i];
    }
    return NULL;
}

/* NULL: it is not seen. */
static const struct posted *seat_posted(const struct seat *seat)
{
    return seat == NULL ? NULL : seat->map.data;
}

static struct seat *seat_new(struct boards *boards, uint64_t epoch)
{
    struct seat *seat = &boards->seats[boards->next];
    boards->next = (boards->next + 1) % BOARDS_MAX;
    seat_free(seat);
    seat->epoch = epoch;
    return seat;
}

void boards_heard(struct boards *boards, uint64_t epoch, const char *name)
{
    struct seat *seat = seat_find(boards, epoch);
    const uint64_t now_ns = env_now_ns(boards->env);

    if (epoch == 0 || name[0] == '\0') return;
    if (seat != NULL && (seat->map.data != NULL || now_ns < seat->retry_ns)) return;
    if (seat == NULL) seat = seat_new(boards, epoch);
    seat->retry_ns = now_ns + BOARD_RETRY_MS * ENV_NS_PER_MS;
    if (env_map_open(boards->env, name, BOARD_SIZE, &seat->map) != STATUS_OK) return;
    const struct posted *posted = seat_posted(seat);
    /* The memory may be a stranger's. */
    if (atomic_load_explicit(&posted->epoch, memory_order_acquire) != epoch) {
        env_map_close(&seat->map);
    }
}

bool boards_look(struct boards *boards, uint64_t epoch, const struct block_key *id, uint32_t *stamp)
{
    const struct posted *posted = seat_posted(seat_find(boards, epoch));
    if (posted == NULL) return false;
    *stamp = atomic_load_explicit(&posted->counters[slot_of(id)], memory_order_acquire);
    return true;
}

void boards_expect(const struct boards *boards, const struct block_key *id)
{
    for (uint32_t i = 0; i < BOARDS_MAX; i++) {
        const struct posted *posted = seat_posted(&boards->seats[i]);
        if (posted != NULL) __builtin_prefetch(&posted->counters[slot_of(id)]);
    }
}

void boards_turn(struct boards *boards)
{
    boards->turn++;
}

static bool seat_lives(const struct boards *boards, struct seat *seat)
{
    if (seat->turn == boards->turn) return true;
    if (!env_map_alive(&seat->map)) {
        seat_free(seat);
        return false;
    }
    seat->turn = boards->turn;
    return true;
}

bool boards_same(struct boards *boards, uint64_t epoch, const struct block_key *id, uint32_t stamp)
{
    struct seat *seat = seat_find(boards, epoch);
    uint32_t present;

    if (seat_posted(seat) == NULL || !seat_lives(boards, seat)) return false; /* I3: the order */
    const uint64_t until_ns =
        atomic_load_explicit(&seat_posted(seat)->until_ns, memory_order_acquire);
    if (!boards_look(boards, epoch, id, &present) || present != stamp) return false;
    const uint64_t now_ns = env_now_ns(boards->env);
    return now_ns < until_ns && until_ns - now_ns <= NODE_VOUCH_MS * ENV_NS_PER_MS;
}
