# Big-endian integers, as PostgreSQL has them on the wire, in a buffer that grows.
#
# Reads go through `read_int32` and `read_int64`, whose callers have checked that so many bytes are
# there. Writes go through `Writer`: its `put_...` methods make room for themselves, and who writes
# much at a time calls `reserve` once and then `store_...` into what it reserved.

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


cdef extern from *:
    """
    /* Written out, as compilers make one instruction of it then. */
    static inline void pgq_store_int16(char *at, int16_t value) {
        uint16_t bits = (uint16_t)value;
        unsigned char *octets = (unsigned char *)at;
        octets[0] = (unsigned char)(bits >> 8);
        octets[1] = (unsigned char)bits;
    }
    static inline void pgq_store_int32(char *at, int32_t value) {
        uint32_t bits = (uint32_t)value;
        unsigned char *octets = (unsigned char *)at;
        octets[0] = (unsigned char)(bits >> 24);
        octets[1] = (unsigned char)(bits >> 16);
        octets[2] = (unsigned char)(bits >> 8);
        octets[3] = (unsigned char)bits;
    }
    static inline void pgq_store_int64(char *at, int64_t value) {
        uint64_t bits = (uint64_t)value;
        unsigned char *octets = (unsigned char *)at;
        octets[0] = (unsigned char)(bits >> 56);
        octets[1] = (unsigned char)(bits >> 48);
        octets[2] = (unsigned char)(bits >> 40);
        octets[3] = (unsigned char)(bits >> 32);
        octets[4] = (unsigned char)(bits >> 24);
        octets[5] = (unsigned char)(bits >> 16);
        octets[6] = (unsigned char)(bits >> 8);
        octets[7] = (unsigned char)bits;
    }
    """
    void store_int16 "pgq_store_int16"(char* at, int16_t value) noexcept nogil
    void store_int32 "pgq_store_int32"(char* at, int32_t value) noexcept nogil
    void store_int64 "pgq_store_int64"(char* at, int64_t value) noexcept nogil


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
        store_int16(self.data + self.size, value)
        self.size += 2
        return 0

    cdef inline int put_int32(self, int32_t value) except -1:
        self.reserve(4)
        store_int32(self.data + self.size, value)
        self.size += 4
        return 0

    cdef inline int put_int64(self, int64_t value) except -1:
        self.reserve(8)
        store_int64(self.data + self.size, value)
        self.size += 8
        return 0

    cdef inline int put_bytes(self, const char* source, Py_ssize_t length) except -1:
        self.reserve(length)
        memcpy(self.data + self.size, source, <size_t>length)
        self.size += length
        return 0

    cdef inline bytes finish(self):
        return PyBytes_FromStringAndSize(self.data, self.size)
