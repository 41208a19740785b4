/* Fault injection, in test builds only (make FLAVOUR=fault): DZ_FAULT=POINT:RANK:N[:KIND] makes the N-th passage of rank RANK through
 * POINT fail. Points: open, read, write, sync, rename, alloc, layout, agree, work, finalize. Kinds: eio (the default), enospc,
 * kill, hang. */
#ifndef DZ_BASE_FAULT_H
#define DZ_BASE_FAULT_H

#ifdef DZ_FAULTS
/* Returns 0, or the errno with which the operation must fail. Kinds kill and hang do not return. */
int dz_fault(const char *point);
void dz_fault_rank(int rank);
#else
#define dz_fault(point) ((void)(point), 0)
#define dz_fault_rank(rank) ((void)(rank))
#endif

#endif
