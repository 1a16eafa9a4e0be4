/* SPDX-License-Identifier: MIT */
/*
 * What two records say together. Pure; read by `faultline status`, by tests, and by any VMM that
 * keeps records of its own.
 */
#include "engine/faultline.h"

static const char *const owner_names[] = {
#define OWNER_NAME(name, text) text,
    FAULTLINE_OWNER_LIST(OWNER_NAME)
#undef OWNER_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(owner_names) == FAULTLINE_OWNER_COUNT);

const char *
faultline_owner_name(FaultlineOwner owner)
{
    return (unsigned)owner < FAULTLINE_OWNER_COUNT ? owner_names[owner] : "unknown";
}

/* The destination alone can say that it never ran the guest, so it is asked first. */
static FaultlinePlace
locate_by_destination(FaultlineOwner destination)
{
    switch (destination) {
    case FAULTLINE_OWNER_HERE:
        return FAULTLINE_PLACE_DESTINATION;
    case FAULTLINE_OWNER_COMING:
    case FAULTLINE_OWNER_REFUSED:
        return FAULTLINE_PLACE_SOURCE;
    default:
        return FAULTLINE_PLACE_EITHER;
    }
}

static FaultlinePlace
locate_by_source(FaultlineOwner source)
{
    switch (source) {
    case FAULTLINE_OWNER_HERE:
        return FAULTLINE_PLACE_SOURCE;
    case FAULTLINE_OWNER_THERE:
        return FAULTLINE_PLACE_DESTINATION;
    default:
        return FAULTLINE_PLACE_EITHER;
    }
}

FaultlinePlace
faultline_locate(const FaultlineOwner *source, const FaultlineOwner *destination)
{
    FaultlinePlace there =
        destination ? locate_by_destination(*destination) : FAULTLINE_PLACE_EITHER;
    FaultlinePlace here = source ? locate_by_source(*source) : FAULTLINE_PLACE_EITHER;

    if (here == FAULTLINE_PLACE_EITHER && there == FAULTLINE_PLACE_EITHER) {
        /* All had left, and all had come: nobody but the destination can run it. */
        bool is_gone = source && destination && *source == FAULTLINE_OWNER_GIVEN;
        return is_gone ? FAULTLINE_PLACE_DESTINATION : FAULTLINE_PLACE_EITHER;
    }
    /* It may have loaded it, and then not have been able to start it. */
    bool is_sent_back = destination && *destination == FAULTLINE_OWNER_REFUSED;
    if (here == FAULTLINE_PLACE_EITHER || is_sent_back)
        return there;
    if (there == FAULTLINE_PLACE_EITHER || there == here)
        return here;
    return FAULTLINE_PLACE_CONFLICT;
}
