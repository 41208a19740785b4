/* Faults on purpose, in builds for tests only (make FLAVOUR=fault): DZ_FAULT=POINT:RANK:N[:KIND] makes the N-th passage of rank RANK
 * through POINT go wrong. Points: open, read, write, sync, rename, alloc, layout, agree, work, finalize. Kinds: eio (the default), enospc,
 * kill, hang. */
#ifndef DZ_BASE_FAULT_H
#define DZ_BASE_FAULT_H

#ifdef DZ_FAULTS
/* 0, or the errno that the operation is to fail with; or it does not return. */
int dz_fault(const char *point);
void dz_fault_rank(int rank);
#else
#define dz_fault(point) ((void)(point), 0)
#define dz_fault_rank(rank) ((void)(rank))
#endif

#endif
