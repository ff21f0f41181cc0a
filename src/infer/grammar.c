/* SPDX-License-Identifier: Apache-2.0
 *
 * infer/grammar.c - follows an answer through the rules, and finds the tokens that may come next.
 *
 * Where the answer can be is a set of threads: places in the rules where a byte is due, each with
 * its stack of places to return to. Stacks are frames that name their parent, and equal frames are
 * one frame (they are interned), so that stacks share what they have in common, two threads are the
 * same when their numbers are, and a set of them is a short list of numbers.
 *
 *   frame 0    the bottom: as a thread it says that the text may end here
 *   frame f    (place, parent): go on at `place`, and when that alternative ends, at `parent`
 *
 * A set of threads met before is the same state, and where a byte leads from a state is remembered,
 * by class of bytes: those that no symbol of the grammar tells apart. So the rules are looked at
 * once for each (state, class), and a byte is a look into a table from then on. When there are too
 * many states all are forgotten but the present one, and with them the frames it does not need.
 *
 * The mask of a state: tokens are sorted by their bytes, so those with a common beginning stand
 * together; walking through them, the states along the current token are kept, and where a byte is
 * not allowed all tokens that share it are passed over. The last few masks are kept by their state,
 * because inside a text the state is the same from token to token.
 *
 * Free text (struct lazy_mark) is not among the rules: special tokens, and bytes that the
 * vocabulary cannot write alone, belong to it. Its state is how much of the mark has been written,
 * kept by Knuth, Morris and Pratt's table; the byte that completes the mark leads to the first
 * state of the rules, and the end of what they say back, if they can be entered again.
 *
 * Invariants (I1 to I3 are in grammar.h)
 *   I6  A frame's parent has a lower number: frames can be moved down in one pass when those that
 *       are not reachable any more are dropped.
 *   I4  depth(parent) + need(alternative) <= GRAMMAR_DEPTH_MAX wherever one is entered.
 *   I5  A walk begins with half of all states and frames free: what does not fit any more is not
 *       allowed, but the first words are always looked at in full. */
#include "infer/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "infer/grammar_int.h"
#include "model/tokenizer.h"

enum {
    FRAMES_MAX = 1 << 18,
    STATES_MAX = 1 << 13,
    THREADS_MAX = 1 << 19, /* of all states */
    WORD_SIZE_MAX = 256,   /* longer tokens are never allowed */
    MASKS = 4,
};

/* ---- words ---- */

struct word {
    const char *bytes; /* the tokenizer's */
    uint32_t token;
    uint16_t len;
    uint16_t shared; /* leading bytes that are those of the word before */
};

struct grammar_words {
    struct word *words; /* by their bytes */
    uint32_t count;
    uint32_t vocab;
    uint32_t *ends;
    uint32_t ends_count;
    bool has[256]; /* bytes that can be written */
    const struct tokenizer *tokenizer;
};

static int compare_words(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    const int order = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);

    if (order != 0) return order;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static uint16_t shared_bytes(const struct word *a, const struct word *b)
{
    uint16_t n = 0;

    while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

static void collect_words(struct grammar_words *words)
{
    for (uint32_t i = 0; i < words->vocab; i++) {
        size_t len = 0;
        const char *bytes = tokenizer_bytes(words->tokenizer, i, &len);
        if (tokenizer_is_end(words->tokenizer, i)) words->ends[words->ends_count++] = i;
        if (tokenizer_is_special(words->tokenizer, i) || tokenizer_is_end(words->tokenizer, i))
            continue;
        if (len == 0 || len > WORD_SIZE_MAX) continue;
        words->words[words->count++] =
            (struct word){ .bytes = bytes, .token = i, .len = (uint16_t)len };
    }
    qsort(words->words, words->count, sizeof(*words->words), compare_words);
    for (uint32_t i = 1; i < words->count; i++)
        words->words[i].shared = shared_bytes(&words->words[i - 1], &words->words[i]);
}

/* Bytes that are tokens of their own can always be written. ASCII must be; other characters are
 * left out by the bytes they begin with: those that are no token (many vocabularies lack rare
 * ones), or all, should some byte that goes on with a character not be one. */
static enum status find_bytes(struct grammar_words *words, struct errmsg *err)
{
    bool continued = true;

    for (uint32_t i = 0; i < words->count; i++) {
        if (words->words[i].len == 1) words->has[(uint8_t)words->words[i].bytes[0]] = true;
    }
    for (unsigned byte = ' '; byte < 0x7f; byte++) {
        if (!words->has[byte] || !words->has['\n'])
            return errmsg_set(err, STATUS_UNSUPPORTED,
                              "the vocabulary has no token for byte 0x%02x",
                              words->has[byte] ? (unsigned)'\n' : byte);
    }
    for (unsigned byte = 0x80; byte < 0xc0; byte++)
        continued &= words->has[byte];
    for (unsigned byte = 0xc0; byte < 256; byte++)
        words->has[byte] &= continued;
    if (words->ends_count == 0)
        return errmsg_set(err, STATUS_UNSUPPORTED, "the vocabulary has no token that ends a text");
    return STATUS_OK;
}

enum status grammar_words_create(const struct tokenizer *tokenizer, struct grammar_words **out,
                                 struct errmsg *err)
{
    struct grammar_words *words = calloc(1, sizeof(*words));

    if (words == NULL) return errmsg_set(err, STATUS_NO_MEMORY, "no memory for the vocabulary");
    words->tokenizer = tokenizer;
    words->vocab = tokenizer_vocab(tokenizer);
    words->words = calloc(words->vocab, sizeof(*words->words));
    words->ends = calloc(words->vocab, sizeof(*words->ends));
    enum status status = STATUS_NO_MEMORY;
    if (words->words != NULL && words->ends != NULL) {
        collect_words(words);
        status = find_bytes(words, err);
    }
    if (status != STATUS_OK) {
        grammar_words_destroy(words);
        return status;
    }
    *out = words;
    return STATUS_OK;
}

void grammar_words_destroy(struct grammar_words *words)
{
    if (words == NULL) return;
    free(words->words);
    free(words->ends);
    free(words);
}

/* ---- frames ---- */

struct frame {
    uint32_t place; /* in the grammar's code */
    uint32_t parent;
    uint32_t depth;
    uint32_t next;  /* in its bucket; 0: none */
    uint64_t stamp; /* of the step that visited it last */
};

struct threads {
    uint32_t count;
    uint32_t list[GRAMMAR_THREADS_MAX];
};

struct state {
    uint32_t first; /* of its threads, in the pool */
    uint32_t count;
    uint32_t next; /* in its bucket; STATE_NONE */
    bool ends;     /* the text may end here */
};

enum { STATE_NONE = 0, STATE_DEAD = 1, STATES_FIRST = 2 };

/* In free text the state says how much of the mark its end could be; FREE_EVER: no mark will be. */
#define FREE 0x80000000u
#define FREE_EVER (FREE | 0xffu)

struct mask {
    uint32_t state; /* STATE_NONE: free */
    uint64_t *bits;
};

struct grammar_matcher {
    const struct grammar *grammar;
    const struct grammar_words *words;

    struct frame *frames;
    uint32_t frames_count, frames_room;
    uint32_t *buckets; /* as many as frames have room */
    uint64_t stamp;

    uint8_t classes[256]; /* of bytes */
    uint8_t sample[256];  /* a byte of each class */
    uint32_t classes_count;
    struct state *states;
    uint32_t *leads; /* [state * classes_count + class]: a state; STATE_NONE: not looked at yet */
    uint32_t states_count, states_room;
    uint32_t state_buckets[1024];
    uint32_t *pool; /* threads of all states */
    uint32_t pool_count, pool_room;

    uint32_t mark_token; /* the special token that is the grammar's mark; TOKENIZER_NONE */
    uint32_t state;      /* the present one */
    uint64_t followed;   /* tokens */
    bool lost;           /* something else than what was allowed has come, or the end */
    struct mask masks[MASKS];
    unsigned mask_next;
    struct threads scratch;
    uint32_t walk[WORD_SIZE_MAX + 1]; /* states after so many bytes of the word at hand */
};

static uint32_t bucket_of(const struct grammar_matcher *m, uint32_t place, uint32_t parent)
{
    const uint64_t mixed = ((uint64_t)place << 32 | parent) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(mixed >> 32) & (m->frames_room - 1);
}

static void link_frame(struct grammar_matcher *m, uint32_t f)
{
    uint32_t *head = &m->buckets[bucket_of(m, m->frames[f].place, m->frames[f].parent)];
    m->frames[f].next = *head;
    *head = f;
}

static void link_all(struct grammar_matcher *m)
{
    memset(m->buckets, 0, m->frames_room * sizeof(*m->buckets));
    for (uint32_t f = 1; f < m->frames_count; f++)
        link_frame(m, f);
}

static bool more_room(struct grammar_matcher *m)
{
    const uint32_t room = m->frames_room * 2;

    if (room > FRAMES_MAX) return false;
    struct frame *frames = realloc(m->frames, room * sizeof(*frames));
    if (frames != NULL) m->frames = frames;
    uint32_t *buckets = frames != NULL ? realloc(m->buckets, room * sizeof(*buckets)) : NULL;
    if (buckets == NULL) return false;
    m->buckets = buckets;
    m->frames_room = room;
    link_all(m);
    return true;
}

/* GRAMMAR_NONE if there is no room. */
static uint32_t intern(struct grammar_matcher *m, uint32_t place, uint32_t parent)
{
    uint32_t f = m->buckets[bucket_of(m, place, parent)];

    while (f != 0 && (m->frames[f].place != place || m->frames[f].parent != parent))
        f = m->frames[f].next;
    if (f != 0) return f;
    if (m->frames_count == m->frames_room && !more_room(m)) return GRAMMAR_NONE;
    f = m->frames_count++;
    m->frames[f] =
        (struct frame){ .place = place, .parent = parent, .depth = m->frames[parent].depth + 1 };
    link_frame(m, f);
    return f;
}

/* Keeps the frames that these threads need, and gives the threads their new numbers. */
static void drop_frames(struct grammar_matcher *m, struct threads *threads)
{
    uint32_t kept = 1;

    m->stamp++;
    for (uint32_t i = 0; i < threads->count; i++) {
        for (uint32_t f = threads->list[i]; f != 0 && m->frames[f].stamp != m->stamp;
             f = m->frames[f].parent)
            m->frames[f].stamp = m->stamp;
    }
    for (uint32_t f = 1; f < m->frames_count; f++) {
        const struct frame frame = m->frames[f];
        if (frame.stamp != m->stamp) continue;
        /* Its parent has moved already, and left its new number in `next` (I6). */
        const uint32_t parent = frame.parent == 0 ? 0 : m->frames[frame.parent].next;
        m->frames[f].next = kept;
        m->frames[kept].place = frame.place;
        m->frames[kept].parent = parent;
        m->frames[kept].depth = frame.depth;
        kept++;
    }
    for (uint32_t i = 0; i < threads->count; i++) {
        if (threads->list[i] != 0) threads->list[i] = m->frames[threads->list[i]].next;
    }
    m->frames_count = kept;
    for (uint32_t f = 0; f < kept; f++)
        m->frames[f].stamp = 0;
    link_all(m);
}

/* ---- steps ---- */

static void add_thread(struct threads *threads, uint32_t thread)
{
    if (threads->count < GRAMMAR_THREADS_MAX) threads->list[threads->count++] = thread;
}

/* To the next places where a byte is due. The depth of the recursion is that of rules that begin or
 * end with rules: bounded by GRAMMAR_DEPTH_MAX and the properties of an object. */
static void go_on(struct grammar_matcher *m, uint32_t place, uint32_t parent, struct threads *out)
{
    const struct grammar *grammar = m->grammar;
    const symbol s = grammar->code[place];

    if (symbol_kind_of(s) == SYMBOL_END) {
        if (parent != 0) {
            go_on(m, m->frames[parent].place, m->frames[parent].parent, out);
        } else if (m->frames[0].stamp != m->stamp) {
            m->frames[0].stamp = m->stamp;
            add_thread(out, 0);
        }
        return;
    }
    const uint32_t here = intern(m, place, parent);
    if (here == GRAMMAR_NONE || m->frames[here].stamp == m->stamp) return;
    m->frames[here].stamp = m->stamp;
    if (symbol_kind_of(s) != SYMBOL_RULE) {
        add_thread(out, here);
        return;
    }
    const bool last = symbol_kind_of(grammar->code[place + 1]) == SYMBOL_END;
    const uint32_t back = last ? parent : intern(m, place + 1, parent);
    if (back == GRAMMAR_NONE) return;
    const uint64_t depth = m->frames[back].depth;
    for (uint32_t a = grammar->rules[symbol_value(s)].first; a != GRAMMAR_NONE;
         a = grammar->alternatives[a].next) {
        if (depth + grammar->alternatives[a].need > GRAMMAR_DEPTH_MAX) continue; /* I4 */
        go_on(m, grammar->alternatives[a].start, back, out);
    }
}

static bool takes(const struct grammar *grammar, symbol s, uint8_t byte)
{
    if (symbol_kind_of(s) == SYMBOL_BYTE) return symbol_value(s) == byte;
    return byte_set_has(&grammar->sets[symbol_value(s)], byte);
}

/* ---- classes of bytes ---- */

/* Splits every class by whether the symbol takes its bytes. */
static void split_classes(struct grammar_matcher *m, symbol s)
{
    int split[256]; /* by class: its other half; -1: not yet */

    memset(split, -1, sizeof(split));
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t class = m->classes[byte];
        if (takes(m->grammar, s, (uint8_t)byte) == takes(m->grammar, s, m->sample[class])) continue;
        if (split[class] < 0) {
            split[class] = (int)m->classes_count;
            m->sample[m->classes_count++] = (uint8_t)byte;
        }
        m->classes[byte] = (uint8_t)split[class];
    }
}

static void find_classes(struct grammar_matcher *m)
{
    bool bytes[256] = { false };

    m->classes_count = 1;
    for (uint32_t i = 0; i < m->grammar->sets_count; i++)
        split_classes(m, symbol_of(SYMBOL_SET, i));
    for (uint32_t i = 0; i < m->grammar->code_count; i++) {
        const symbol s = m->grammar->code[i];
        if (symbol_kind_of(s) != SYMBOL_BYTE || bytes[symbol_value(s)]) continue;
        bytes[symbol_value(s)] = true;
        split_classes(m, s);
    }
}

/* ---- states ---- */

static void forget_states(struct grammar_matcher *m)
{
    m->states_count = STATES_FIRST;
    m->pool_count = 0;
    memset(m->state_buckets, 0, sizeof(m->state_buckets));
    for (unsigned i = 0; i < MASKS; i++)
        m->masks[i].state = STATE_NONE;
}

static uint32_t *state_bucket(struct grammar_matcher *m, const struct threads *threads)
{
    const uint64_t hash = hash_xxh3(threads->list, threads->count * sizeof(*threads->list));
    return &m->state_buckets[hash % (sizeof(m->state_buckets) / sizeof(m->state_buckets[0]))];
}

static bool grow(void **base, uint32_t wanted, uint32_t *room, uint32_t max, size_t size)
{
    uint32_t larger = *room;

    while (larger < wanted && larger <= max / 2)
        larger *= 2;
    if (larger < wanted) return false;
    if (larger == *room) return true;
    void *grown = realloc(*base, larger * size);
    if (grown == NULL) return false;
    *base = grown;
    *room = larger;
    return true;
}

static bool room_for_state(struct grammar_matcher *m, uint32_t threads)
{
    const uint32_t before = m->states_room;
    void *states = m->states, *pool = m->pool;

    const bool pool_ok =
        grow(&pool, m->pool_count + threads, &m->pool_room, THREADS_MAX, sizeof(*m->pool));
    m->pool = pool;
    if (!pool_ok) return false;
    const bool states_ok =
        grow(&states, m->states_count + 1, &m->states_room, STATES_MAX, sizeof(*m->states));
    m->states = states;
    if (!states_ok || before == m->states_room) return states_ok;
    uint32_t *leads = realloc(m->leads, (size_t)m->states_room * m->classes_count * sizeof(*leads));
    if (leads == NULL) {
        m->states_room = before; /* there is more of the other; that does no harm */
        return false;
    }
    m->leads = leads;
    return true;
}

/* The state with these threads; STATE_DEAD if there are none, STATE_NONE if there is no room. */
static uint32_t state_of(struct grammar_matcher *m, const struct threads *threads)
{
    uint32_t *bucket = state_bucket(m, threads);
    const size_t size = threads->count * sizeof(*threads->list);

    if (threads->count == 0) return STATE_DEAD;
    for (uint32_t s = *bucket; s != STATE_NONE; s = m->states[s].next) {
        if (m->states[s].count == threads->count &&
            memcmp(m->pool + m->states[s].first, threads->list, size) == 0)
            return s;
    }
    if (!room_for_state(m, threads->count)) return STATE_NONE;
    const uint32_t added = m->states_count++;
    struct state *state = &m->states[added];
    *state = (struct state){ .first = m->pool_count, .count = threads->count, .next = *bucket };
    for (uint32_t i = 0; i < threads->count; i++)
        state->ends |= threads->list[i] == 0;
    memcpy(m->pool + m->pool_count, threads->list, size);
    m->pool_count += threads->count;
    memset(m->leads + (size_t)added * m->classes_count, 0, m->classes_count * sizeof(*m->leads));
    *bucket = added;
    return added;
}

/* Where a byte leads; STATE_DEAD if it is not allowed, or there is no room to say. */
static uint32_t step(struct grammar_matcher *m, uint32_t from, uint8_t byte)
{
    const size_t at = (size_t)from * m->classes_count + m->classes[byte];
    struct threads *out = &m->scratch;

    if (!m->words->has[byte]) return STATE_DEAD; /* others of its class may be written */
    if (m->leads[at] != STATE_NONE) return m->leads[at];
    out->count = 0;
    m->stamp++;
    for (uint32_t i = 0; i < m->states[from].count; i++) {
        const uint32_t thread = m->pool[m->states[from].first + i];
        if (thread == 0) continue;
        const struct frame frame = m->frames[thread];
        if (takes(m->grammar, m->grammar->code[frame.place], byte))
            go_on(m, frame.place + 1, frame.parent, out);
    }
    const uint32_t to = state_of(m, out);
    if (to == STATE_NONE) return STATE_DEAD;
    m->leads[at] = to;
    return to;
}

/* The start of the rules. */
static uint32_t enter(struct grammar_matcher *m)
{
    const struct rule *root = &m->grammar->rules[m->grammar->root];

    m->scratch.count = 0;
    m->stamp++;
    for (uint32_t a = root->first; a != GRAMMAR_NONE; a = m->grammar->alternatives[a].next) {
        if (m->grammar->alternatives[a].need > GRAMMAR_DEPTH_MAX) continue;
        go_on(m, m->grammar->alternatives[a].start, 0, &m->scratch);
    }
    const uint32_t state = state_of(m, &m->scratch);
    return state == STATE_NONE ? STATE_DEAD : state;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

/* The mark is complete. */
static uint32_t enter_behind(struct grammar_matcher *m)
{
    const struct lazy_mark *mark = &m->grammar->mark;
    uint32_t state = enter(m);

    for (uint8_t i = 0; mark->within && i < mark->len && state != STATE_DEAD; i++)
        state = step(m, state, (uint8_t)mark->text[i]);
    return state;
}

static uint32_t step_free(struct grammar_matcher *m, uint32_t from, uint8_t byte)
{
    const struct lazy_mark *mark = &m->grammar->mark;
    uint32_t seen = from & ~FREE;

    if (from == FREE_EVER || (mark->first && seen == 0 && is_blank(byte))) return from;
    if (mark->first && (uint8_t)mark->text[seen] != byte) return FREE_EVER;
    while (seen > 0 && (uint8_t)mark->text[seen] != byte)
        seen = mark->border[seen];
    if ((uint8_t)mark->text[seen] == byte) seen++;
    return seen == mark->len ? enter_behind(m) : FREE | seen;
}

/* Where a byte leads, in free text and in what the rules say. */
static uint32_t lead(struct grammar_matcher *m, uint32_t from, uint8_t byte)
{
    if ((from & FREE) != 0) return step_free(m, from, byte);
    const uint32_t to = step(m, from, byte);
    const bool over = to >= STATES_FIRST && m->states[to].count == 1 && m->states[to].ends;
    return over && m->grammar->mark.again ? FREE : to;
}

/* May the text end? */
static bool may_end(const struct grammar_matcher *m)
{
    return m->lost || (m->state & FREE) != 0 || m->states[m->state].ends;
}

/* I5 */
static void make_room(struct grammar_matcher *m)
{
    if (m->states_count <= STATES_MAX / 2 && m->frames_count <= FRAMES_MAX / 2 &&
        m->pool_count <= THREADS_MAX / 2)
        return;
    if ((m->state & FREE) != 0) {
        m->scratch.count = 0;
        drop_frames(m, &m->scratch);
        forget_states(m);
        return;
    }
    m->scratch.count = m->states[m->state].count;
    memcpy(m->scratch.list, m->pool + m->states[m->state].first,
           m->scratch.count * sizeof(*m->scratch.list));
    drop_frames(m, &m->scratch);
    forget_states(m);
    m->state = state_of(m, &m->scratch);
    ASSERT(m->state != STATE_NONE);
}

/* ---- a matcher ---- */

static void restart(struct grammar_matcher *m)
{
    m->frames[0] = (struct frame){ .place = 0 };
    m->frames_count = 1;
    m->stamp = 1;
    m->followed = 0;
    m->lost = false;
    link_all(m);
    forget_states(m);
    m->state = m->grammar->mark.len > 0 ? FREE : enter(m);
    ASSERT(m->state >= STATES_FIRST); /* the grammar has been checked */
}

static bool allocate(struct grammar_matcher *m)
{
    const size_t words = (m->words->vocab + 63) / 64;

    m->frames_room = 256;
    m->states_room = 64;
    m->pool_room = 2048; /* above GRAMMAR_THREADS_MAX */
    m->frames = malloc(m->frames_room * sizeof(*m->frames));
    m->buckets = malloc(m->frames_room * sizeof(*m->buckets));
    m->states = malloc(m->states_room * sizeof(*m->states));
    m->leads = malloc((size_t)m->states_room * m->classes_count * sizeof(*m->leads));
    m->pool = malloc(m->pool_room * sizeof(*m->pool));
    if (m->frames == NULL || m->buckets == NULL || m->states == NULL || m->leads == NULL ||
        m->pool == NULL)
        return false;
    for (unsigned i = 0; i < MASKS; i++) {
        m->masks[i].bits = calloc(words, sizeof(*m->masks[i].bits));
        if (m->masks[i].bits == NULL) return false;
    }
    return true;
}

/* Names and values of a schema are written as they are, or not at all. */
static bool can_write(const struct grammar *grammar, const struct grammar_words *words)
{
    for (uint32_t i = 0; i < grammar->code_count; i++) {
        const symbol s = grammar->code[i];
        if (symbol_kind_of(s) == SYMBOL_BYTE && !words->has[symbol_value(s)]) return false;
    }
    return true;
}

enum status grammar_matcher_create(const struct grammar *grammar, const struct grammar_words *words,
                                   struct grammar_matcher **out)
{
    struct grammar_matcher *m = calloc(1, sizeof(*m));

    if (m == NULL) return STATUS_NO_MEMORY;
    if (!can_write(grammar, words)) {
        free(m);
        return STATUS_UNSUPPORTED;
    }
    m->grammar = grammar;
    m->words = words;
    find_classes(m);
    m->mark_token = tokenizer_find_special(words->tokenizer, grammar->mark.text);
    if (!allocate(m)) {
        grammar_matcher_destroy(m);
        return STATUS_NO_MEMORY;
    }
    restart(m);
    *out = m;
    return STATUS_OK;
}

void grammar_matcher_destroy(struct grammar_matcher *m)
{
    if (m == NULL) return;
    for (unsigned i = 0; i < MASKS; i++)
        free(m->masks[i].bits);
    free(m->frames);
    free(m->buckets);
    free(m->states);
    free(m->leads);
    free(m->pool);
    free(m);
}

/* Where the bytes lead from the present state. */
static uint32_t steps(struct grammar_matcher *m, const char *bytes, size_t len)
{
    uint32_t state = m->state;

    for (size_t i = 0; i < len && state != STATE_DEAD; i++)
        state = lead(m, state, (uint8_t)bytes[i]);
    return state;
}

/* Where a token leads that does not end the text. Special ones have no text: in what is free they
 * are the mark, or stand apart. */
static uint32_t state_behind(struct grammar_matcher *m, uint32_t token)
{
    size_t len = 0;
    const char *bytes = tokenizer_bytes(m->words->tokenizer, token, &len);
    const bool free = (m->state & FREE) != 0;

    if (tokenizer_is_special(m->words->tokenizer, token)) {
        if (!free) return STATE_DEAD;
        if (token == m->mark_token) return enter_behind(m);
        return m->state == FREE_EVER ? FREE_EVER : FREE;
    }
    if (!free && (len == 0 || len > WORD_SIZE_MAX)) return STATE_DEAD;
    return steps(m, bytes, len);
}

void grammar_matcher_follow(struct grammar_matcher *m, const uint32_t *tokens, uint64_t count)
{
    if (count < m->followed) restart(m);
    for (; m->followed < count && !m->lost; m->followed++) {
        if (!grammar_matcher_allows(m, tokens[m->followed]) ||
            tokenizer_is_end(m->words->tokenizer, tokens[m->followed])) {
            m->lost = true;
            break;
        }
        m->state = state_behind(m, tokens[m->followed]);
    }
    m->followed = count;
}

bool grammar_matcher_allows(struct grammar_matcher *m, uint32_t token)
{
    if (tokenizer_is_end(m->words->tokenizer, token)) return may_end(m);
    if (m->lost) return false;
    make_room(m);
    return state_behind(m, token) != STATE_DEAD;
}

/* ---- masks ---- */

static void set_bit(uint64_t *bits, uint32_t token)
{
    bits[token / 64] |= UINT64_C(1) << (token % 64);
}

static void clear_bit(uint64_t *bits, uint32_t token)
{
    bits[token / 64] &= ~(UINT64_C(1) << (token % 64));
}

static void allow_ends(const struct grammar_matcher *m, uint64_t *bits)
{
    for (uint32_t i = 0; i < m->words->ends_count; i++)
        set_bit(bits, m->words->ends[i]);
}

/* How many bytes of the word can be taken, where walk[from] is the state after its first `from`. */
static uint32_t walk_word(struct grammar_matcher *m, const struct word *word, uint32_t from)
{
    for (uint32_t at = from; at < word->len; at++) {
        m->walk[at + 1] = lead(m, m->walk[at], (uint8_t)word->bytes[at]);
        if (m->walk[at + 1] == STATE_DEAD) return at;
    }
    return word->len;
}

static void set_all(const struct grammar_matcher *m, uint64_t *bits)
{
    for (uint32_t t = 0; t < m->words->vocab; t++)
        set_bit(bits, t);
}

/* Words leave the mask of free text, or come into another one. */
static void walk_words(struct grammar_matcher *m, uint64_t *bits)
{
    const struct grammar_words *words = m->words;
    const bool free = (m->state & FREE) != 0;
    uint32_t taken = 0; /* bytes of the last word looked at: states up to there are known */

    m->walk[0] = m->state;
    if (free) set_all(m, bits);
    for (uint32_t i = 0; i < words->count; i++) {
        const struct word *word = &words->words[i];
        if (word->shared <= taken) taken = walk_word(m, word, word->shared);
        /* Else it has the byte that was not allowed. */
        const bool allowed = word->shared <= taken && taken == word->len;
        if (allowed)
            set_bit(bits, word->token);
        else if (free)
            clear_bit(bits, word->token);
    }
}

const uint64_t *grammar_matcher_mask(struct grammar_matcher *m)
{
    make_room(m);
    for (unsigned i = 0; i < MASKS && !m->lost; i++) {
        if (m->masks[i].state == m->state) return m->masks[i].bits;
    }
    struct mask *mask = &m->masks[m->mask_next++ % MASKS];
    memset(mask->bits, 0, (m->words->vocab + 63) / 64 * sizeof(*mask->bits));
    mask->state = m->lost ? STATE_NONE : m->state;
    if (may_end(m)) allow_ends(m, mask->bits);
    if (!m->lost) walk_words(m, mask->bits);
    return mask->bits;
}
