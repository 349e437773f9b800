// Asks for the memory of the patches of the next panel, bit by bit, while the present one is multiplied: there the
// processor waits for nothing. Otherwise the patches of a large stack, or of an image beyond the caches, come at the
// latency of the memory.
#pragma once

#include "fold.hpp"
#include "simd.hpp"

namespace contextem {
namespace {

template <class T>
class NextPatches {
public:
    // Every patch takes `steps` steps, `stride` apart from its first value on; a step asks for the cache lines of the
    // value there and of the one `second` further.
    NextPatches(Index steps, Index stride, Index second) : steps_(steps), stride_(stride), second_(second) {}

    // Up to panel_patches<T>() of them, before the first call of fetch.
    void add(const T* patch) {
        patch_[count_++] = patch;
        if (count_ == 1) {
            value_ = patch;
            left_ = steps_;
        }
    }

    // Takes one step; none when there are no more.
    CONTEXTEM_INLINE void fetch() {
        __builtin_prefetch(value_, 0, 2);
        __builtin_prefetch(value_ + second_, 0, 2);
        asm volatile("");  // GCC would find that a loop that only prefetches does nothing
        value_ += stride_;
        if (--left_ == 0) {
            ++number_;
            value_ = number_ < count_ ? patch_[number_] : patch_[0];
            left_ = number_ < count_ ? steps_ : 0;
            stride_ = number_ < count_ ? stride_ : 0;
        }
    }

private:
    Index steps_;
    Index stride_;
    Index second_;
    Index count_ = 0;
    Index number_ = 0;
    Index left_ = 0;
    const T* value_ = nullptr;  // asking for no address at all is allowed
    const T* patch_[static_cast<std::size_t>(panel_patches<T>())];
};

}  // namespace
}  // namespace contextem
