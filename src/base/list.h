/* SPDX-License-Identifier: Apache-2.0
 *
 * base/list.h - doubly linked lists whose links, `prev` and `next`, are members of the items, and
 * whose head is a pointer to the first one, NULL when empty. An item is in one list at a time. Both
 * take and leave in constant time; arguments are evaluated more than once. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/assert.h"

/* In front of all others. */
#define LIST_PUSH(head, item)                                                                      \
    do {                                                                                           \
        (item)->prev = NULL;                                                                       \
        (item)->next = (head);                                                                     \
        if ((head) != NULL) (head)->prev = (item);                                                 \
        (head) = (item);                                                                           \
    } while (0)

/* Its own links stay as they are. */
#define LIST_REMOVE(head, item)                                                                    \
    do {                                                                                           \
        if ((item)->prev == NULL) {                                                                \
            ASSERT((head) == (item));                                                              \
            (head) = (item)->next;                                                                 \
        } else {                                                                                   \
            (item)->prev->next = (item)->next;                                                     \
        }                                                                                          \
        if ((item)->next != NULL) (item)->next->prev = (item)->prev;                               \
    } while (0)

#endif
