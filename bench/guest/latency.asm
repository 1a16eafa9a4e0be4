; SPDX-License-Identifier: MIT
; A guest that times its own memory, one image for two machines: a PC's BIOS loads the first sector
; from a disk and this code fetches the rest, faultline loads the whole file. Both jump to 0x7c00 in
; real mode. bench/compare-qemu fills in the parameters and reads state and log out of the guest's
; memory afterwards, so that nothing is asked of the guest while it is measured.
;
; 32-bit protected mode without paging, interrupts off. Every page gets a word that is not 0; then
; the working set is written for ever, one word a page, in an order that visits each page once
; (a full-period generator) and has no direction. Each write is timed by the TSC. One that takes
; P_FACTOR times the quickest of CALIBRATION writes or more is slow: the log, a ring, gets when it
; ended, how long it took, and its page. A line on the serial port every P_REPORT ticks gives the
; clock, which is how its reader learns what the guest's TSC is in time of the host.

COM             equ 0x3f8
MULTIPLIER      equ 1664525             ; 1 modulo 4, with an odd increment: full period
INCREMENT       equ 1013904223
CALIBRATION     equ 4096
SECTORS         equ (image_end - image + 511) / 512

                org 0x7c00
                bits 16
image:
                jmp 0:start
                align 16, db 0x90
; ---- Parameters, at offset 16 of the file; bench/compare/guest.py has the same layout
P_MAGIC         db "FLLATENC"
P_FILL          dd 0                    ; pages to fill, from P_BASE on
P_PAGES         dd 0                    ; working set, the first of them
P_BASE          dd 0                    ; address
P_MASK          dd 0                    ; power of two - 1, not below P_PAGES - 1
P_LOG           dd 0                    ; address of the log
P_LOG_MASK      dd 0                    ; bytes of the log - 1; a power of two, entries of 16
P_FACTOR        dd 3
P_REPORT        dd 0                    ; ticks
; ---- State, right behind them
S_TOUCHES       dq 0
S_SLOW          dq 0                    ; entries ever written to the log
S_STALLED       dq 0                    ; ticks of slow touches
S_LONGEST       dd 0                    ; ticks
S_LOCAL         dd 0xffffffff           ; ticks of the quickest touch
S_THRESHOLD     dd 0xffffffff           ; ticks from which a touch is slow
S_FILLED        dd 0
next_report     dq 0
boot_disk       db 0

start:
                cli
                xor ax, ax
                mov ds, ax
                mov es, ax
                mov ss, ax
                mov sp, 0x7c00
                cmp dword [end_mark], END_MARK
                je .whole
                mov [boot_disk], dl
                sti
.read:          mov ax, 0x0200 + SECTORS - 1
                mov bx, image + 512
                mov cx, 2               ; cylinder 0, sector 2
                mov dh, 0
                mov dl, [boot_disk]
                int 0x13
                jnc .loaded
                xor ax, ax              ; reset, again
                mov dl, [boot_disk]
                int 0x13
                jmp .read
.loaded:        cli
.whole:         in al, 0x92
                or al, 2
                and al, 0xfe
                out 0x92, al
                lgdt [gdt_pointer]
                mov eax, cr0
                or al, 1
                mov cr0, eax
                jmp 0x08:protected

                align 8
gdt:            dq 0
                dq 0x00cf9a000000ffff   ; 0x08 code
                dq 0x00cf92000000ffff   ; 0x10 data
gdt_pointer:    dw $ - gdt - 1
                dd gdt

                times 510 - ($ - image) db 0
                dw 0xaa55

                bits 32
protected:
                mov ax, 0x10
                mov ds, ax
                mov es, ax
                mov ss, ax
                mov esp, 0x7c00
                cmp dword [P_PAGES], 0
                je no_parameters

fill:           mov edi, [P_BASE]
                mov ecx, [P_FILL]
.page:          mov [edi + 8], edi
                mov [edi], ecx
                add edi, 4096
                dec ecx
                jnz .page

; The quickest of many touches, with everything in place.
calibrate:
                xor ebx, ebx
                mov ebp, CALIBRATION
.touch:         call choose
                rdtsc
                mov esi, eax
                add dword [ecx], 1
                rdtsc
                sub eax, esi
                cmp eax, [S_LOCAL]
                jae .slower
                mov [S_LOCAL], eax
.slower:        dec ebp
                jnz .touch
                mov eax, [S_LOCAL]
                mul dword [P_FACTOR]
                mov [S_THRESHOLD], eax
                mov dword [S_FILLED], 1

; ebx generator, ecx address, esi and edi the clock before, ebp threshold
                mov ebp, eax
touch:          call choose
                rdtsc
                mov esi, eax
                mov edi, edx
                add dword [ecx], 1
                rdtsc
                add dword [S_TOUCHES], 1
                adc dword [S_TOUCHES + 4], 0
                push edx
                push eax
                sub eax, esi
                sbb edx, edi
                jnz .very_slow
                cmp eax, ebp
                jae .slow
.timed:         pop eax
                pop edx
                sub eax, [next_report]
                sbb edx, [next_report + 4]
                jc touch
                call report
                jmp touch
.very_slow:     mov eax, 0xffffffff
.slow:          mov edi, [S_SLOW]
                shl edi, 4
                and edi, [P_LOG_MASK]
                add edi, [P_LOG]
                mov [edi + 8], eax
                mov [edi + 12], ecx
                pop dword [edi]
                pop dword [edi + 4]
                sub esp, 8
                add dword [S_SLOW], 1
                adc dword [S_SLOW + 4], 0
                add [S_STALLED], eax
                adc dword [S_STALLED + 4], 0
                cmp eax, [S_LONGEST]
                jbe .timed
                mov [S_LONGEST], eax
                jmp .timed

; The next page of the order -> ecx its address; ebx generator, eax is lost.
choose:
.next:          imul ebx, ebx, MULTIPLIER
                add ebx, INCREMENT
                and ebx, [P_MASK]
                mov ecx, ebx            ; low bits of the generator have short periods
                shr ecx, 7
                xor ecx, ebx
                cmp ecx, [P_PAGES]
                jae .next
                shl ecx, 12
                add ecx, [P_BASE]
                ret

; tsc TICKS touches N slow N stalled TICKS longest TICKS local TICKS, in hexadecimal
report:
                rdtsc
                push edx
                push eax
                add eax, [P_REPORT]
                adc edx, 0
                mov [next_report], eax
                mov [next_report + 4], edx
                mov esi, text_tsc
                call print
                pop eax
                pop edx
                call print_64
                mov esi, text_touches
                mov edi, S_TOUCHES
                call print_field
                mov esi, text_slow
                mov edi, S_SLOW
                call print_field
                mov esi, text_stalled
                mov edi, S_STALLED
                call print_field
                mov esi, text_longest
                call print
                mov eax, [S_LONGEST]
                call print_32
                mov esi, text_local
                call print
                mov eax, [S_LOCAL]
                call print_32
                mov esi, text_line
                jmp print

print_field:
                call print
                mov eax, [edi]
                mov edx, [edi + 4]
print_64:
                push eax
                mov eax, edx
                call print_32
                pop eax
print_32:
                push ecx
                mov ecx, 8
.digit:         rol eax, 4
                push eax
                and eax, 15
                mov al, [hexadecimal + eax]
                mov dx, COM
                out dx, al
                pop eax
                dec ecx
                jnz .digit
                pop ecx
                ret

print:
                mov dx, COM
.next:          lodsb
                test al, al
                jz .done
                out dx, al
                jmp .next
.done:          ret

no_parameters:
                mov esi, text_parameters
                call print
.stop:          hlt
                jmp .stop

hexadecimal     db "0123456789abcdef"
text_tsc        db "tsc ", 0
text_touches    db " touches ", 0
text_slow       db " slow ", 0
text_stalled    db " stalled ", 0
text_longest    db " longest ", 0
text_local      db " local ", 0
text_line       db 13, 10, 0
text_parameters db "no parameters: bench/compare-qemu fills them in", 13, 10, 0
END_MARK        equ 0x444e4546
end_mark        dd END_MARK
                align 512, db 0
image_end:
