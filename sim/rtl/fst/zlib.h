// What Verilator's FST writer takes of zlib, so that waveforms need no package of the system: streams in zlib's format
// (RFC 1950) of stored blocks (RFC 1951), which are not compressed. The writer then prefers the bytes as they are; it
// asks for zlib only where there are few of them.

#pragma once

#include <cstdint>
#include <cstring>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = uLong;

constexpr int Z_OK = 0, Z_BUF_ERROR = -5;

inline uLong compressBound(uLong size) { return size + 5 * (size / 65535 + 1) + 6; }

// `size` bytes to `destination`, whose room `*written` names and then what was needed.
inline int compress2(Bytef* destination, uLongf* written, const Bytef* source, uLong size, int) {
    if (*written < compressBound(size)) return Z_BUF_ERROR;
    Bytef* out = destination;
    *out++ = 0x78;
    *out++ = 0x01;
    uint32_t low = 1, high = 0;  // Adler-32
    uLong at = 0;
    do {
        const uLong length = size - at < 65535 ? size - at : 65535;
        const bool final = at + length == size;
        const Bytef head[] = {final, Bytef(length), Bytef(length >> 8), Bytef(~length), Bytef(~length >> 8)};
        std::memcpy(out, head, sizeof head);
        if (length) std::memcpy(out + sizeof head, source + at, length);
        out += sizeof head + length;
        for (uLong n = at; n < at + length; ++n) {
            low = (low + source[n]) % 65521;
            high = (high + low) % 65521;
        }
        at += length;
    } while (at < size);
    for (const uint32_t half : {high, low}) {
        *out++ = Bytef(half >> 8);
        *out++ = Bytef(half);
    }
    *written = static_cast<uLongf>(out - destination);
    return Z_OK;
}
