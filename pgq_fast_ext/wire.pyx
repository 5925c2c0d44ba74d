"""A growing buffer for PostgreSQL's binary formats; used by the other kernels through its .pxd."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc


cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX


cdef class Writer:
    # Invariant: 0 <= size <= room, and data points to room bytes.

    def __cinit__(self, Py_ssize_t room=1024):
        if room < 64:
            room = 64
        self.data = <char*>PyMem_Malloc(<size_t>room)
        if self.data == NULL:
            raise MemoryError()
        self.size = 0
        self.room = room

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int grow(self, Py_ssize_t extra) except -1:
        cdef Py_ssize_t wanted
        cdef char* bigger
        if extra < 0 or extra > PY_SSIZE_T_MAX - self.size:
            raise MemoryError()
        wanted = self.size + extra
        if self.room <= PY_SSIZE_T_MAX // 2 and wanted < 2 * self.room:
            wanted = 2 * self.room
        bigger = <char*>PyMem_Realloc(self.data, <size_t>wanted)
        if bigger == NULL:
            raise MemoryError()
        self.data = bigger
        self.room = wanted
        return 0
