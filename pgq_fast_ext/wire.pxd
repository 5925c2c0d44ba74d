# Big-endian integers, as PostgreSQL has them on the wire, in a buffer that grows.
#
# Reads go through `read_int32` and `read_int64`, whose callers have checked that so many bytes are
# there; writes go through `Writer`, which makes room before each one.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline int32_t read_int32(const char* source) noexcept nogil:
    cdef const uint8_t* octets = <const uint8_t*>source
    return <int32_t>(
        (<uint32_t>octets[0] << 24)
        | (<uint32_t>octets[1] << 16)
        | (<uint32_t>octets[2] << 8)
        | <uint32_t>octets[3]
    )


cdef inline int64_t read_int64(const char* source) noexcept nogil:
    cdef const uint8_t* octets = <const uint8_t*>source
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = (value << 8) | octets[i]
    return <int64_t>value


cdef class Writer:
    cdef char* data
    cdef Py_ssize_t size
    cdef Py_ssize_t room

    cdef inline int reserve(self, Py_ssize_t extra) except -1:
        if extra > self.room - self.size:
            return self.grow(extra)
        return 0

    cdef int grow(self, Py_ssize_t extra) except -1

    cdef inline int put_int16(self, int16_t value) except -1:
        self.reserve(2)
        self.data[self.size] = <char>((value >> 8) & 0xFF)
        self.data[self.size + 1] = <char>(value & 0xFF)
        self.size += 2
        return 0

    cdef inline int put_int32(self, int32_t value) except -1:
        cdef int i
        self.reserve(4)
        for i in range(4):
            self.data[self.size + i] = <char>((value >> (24 - 8 * i)) & 0xFF)
        self.size += 4
        return 0

    cdef inline int put_int64(self, int64_t value) except -1:
        cdef int i
        self.reserve(8)
        for i in range(8):
            self.data[self.size + i] = <char>((value >> (56 - 8 * i)) & 0xFF)
        self.size += 8
        return 0

    cdef inline int put_bytes(self, const char* source, Py_ssize_t length) except -1:
        self.reserve(length)
        memcpy(self.data + self.size, source, <size_t>length)
        self.size += length
        return 0

    cdef inline bytes finish(self):
        return PyBytes_FromStringAndSize(self.data, self.size)
